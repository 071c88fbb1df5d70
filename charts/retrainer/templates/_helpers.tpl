{{- define "retrainer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 50 characters, so that what is added to it stays below 63. */ -}}
{{- define "retrainer.fullname" -}}
{{- $name := include "retrainer.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "retrainer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "retrainer.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "retrainer.labels" -}}
{{ include "retrainer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The same with an object's own ones, which win: (list $ .Values.operator.podLabels). */ -}}
{{- define "retrainer.labelsWith" -}}
{{- $own := default dict (index . 1) -}}
{{- merge (dict) $own (include "retrainer.labels" (index . 0) | fromYaml) | toYaml -}}
{{- end -}}

{{- define "retrainer.operator" -}}
{{ include "retrainer.fullname" . }}-operator
{{- end -}}

{{- /* Also on the pod of `helm test`, which is no operator: the component tells them apart. */ -}}
{{- define "retrainer.operatorSelector" -}}
{{ include "retrainer.selectorLabels" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "retrainer.operatorAccount" -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- default (include "retrainer.operator" .) .Values.operator.serviceAccount.name -}}
{{- else -}}
{{- required "operator.serviceAccount.name must name an existing ServiceAccount when create is false" .Values.operator.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* The chart and the image's values, as (dict "chart" .Chart "image" .Values.operator.image). */ -}}
{{- define "retrainer.image" -}}
{{- $repository := required "operator.image.repository and trainer.image.repository must name the container images that you have built and pushed: none is published (docs/howto/install.md)." .image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "retrainer.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The user is the container image's own, 65532, or the one that OpenShift gives the namespace. */ -}}
{{- define "retrainer.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* What the operator may do with RetrainJobs and their children, wherever it serves them. Never Secrets. */ -}}
{{- define "retrainer.rules" -}}
- apiGroups: [retrainer.dev]
  resources: [retrainjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [retrainer.dev]
  resources: [retrainjobs/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end -}}
