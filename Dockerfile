# Three container images from one file: `--target operator`, `--target trainer`, and, for jobs that need
# TensorFlow (exports to keras and tfliteInt8, GPUs), `--target trainer-tensorflow`.
#
# PYTHON_IMAGE is any image with Python 3.11 or newer and its venv module (Debian's python3-venv).
# TENSORFLOW_REQUIREMENTS=requirements/trainer-gpu.txt makes the latter for nodes with a GPU.
# PIP_CERT is a file of certificates inside the build, where the way to the package index has its own:
#   buildah build -v /etc/ssl/certs:/etc/ssl/certs:ro --build-arg PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ARG PYTHON_IMAGE=python:3.13-slim

# --- what is installed: changes only with requirements/, takes minutes ---
FROM ${PYTHON_IMAGE} AS builder
ARG PIP_CERT=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
RUN python3 -m venv /opt/retrainer

FROM builder AS operator-packages
COPY requirements/operator.txt /build/
RUN /opt/retrainer/bin/python -m pip install --require-hashes --only-binary :all: -r /build/operator.txt \
 && /opt/retrainer/bin/python -m pip uninstall --yes pip

# Headers and the libraries' own tests: nothing here ever opens them.
FROM builder AS trainer-packages
COPY requirements/trainer.txt /build/
RUN /opt/retrainer/bin/python -m pip install --require-hashes --only-binary :all: -r /build/trainer.txt \
 && cd /opt/retrainer/lib/python3.*/site-packages \
 && rm -r pyarrow/include pyarrow/tests onnx/backend/test \
 && /opt/retrainer/bin/python -m pip uninstall --yes pip

# With TensorFlow's headers and a compiler's library these are 370 MB.
FROM builder AS trainer-tensorflow-packages
ARG TENSORFLOW_REQUIREMENTS=requirements/trainer-tensorflow.txt
COPY ${TENSORFLOW_REQUIREMENTS} /build/trainer.txt
RUN /opt/retrainer/bin/python -m pip install --require-hashes --only-binary :all: -r /build/trainer.txt \
 && cd /opt/retrainer/lib/python3.*/site-packages \
 && rm -r tensorflow/include pyarrow/include pyarrow/tests onnx/backend/test clang \
 && /opt/retrainer/bin/python -m pip uninstall --yes pip

# --- this repository: changes often, takes seconds ---
# Bytecode is compiled here, since pods cannot write it; unchecked, since nothing changes any more.
FROM builder AS operator-program
COPY sdk/retrainer /app/retrainer
COPY operator/retrainer_operator /app/retrainer_operator
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM builder AS trainer-program
COPY sdk/retrainer /app/retrainer
COPY trainer/retrainer_trainer /app/retrainer_trainer
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

# --- what runs: no pip, no shell entry, no root, nothing written but under /tmp ---
FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/retrainer/bin:$PATH PYTHONPATH=/app PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
LABEL org.opencontainers.image.licenses=Apache-2.0
WORKDIR /tmp
USER 65532:65532

# What a source change alters comes last: one small layer.
FROM runtime AS operator
LABEL org.opencontainers.image.title="Retrainer operator" \
      org.opencontainers.image.description="Runs RetrainJobs in a Kubernetes cluster"
EXPOSE 8080 8081
ENTRYPOINT ["/opt/retrainer/bin/python", "-m", "retrainer_operator"]
COPY --from=operator-packages /opt/retrainer /opt/retrainer
COPY --from=operator-program /app /app

FROM runtime AS trainer
LABEL org.opencontainers.image.title="Retrainer trainer" \
      org.opencontainers.image.description="Computes bottlenecks and trains the head of one RetrainJob"
EXPOSE 9464
ENTRYPOINT ["/opt/retrainer/bin/python", "-m", "retrainer_trainer"]
COPY --from=trainer-packages /opt/retrainer /opt/retrainer
COPY --from=trainer-program /app /app

FROM runtime AS trainer-tensorflow
LABEL org.opencontainers.image.title="Retrainer trainer with TensorFlow" \
      org.opencontainers.image.description="Computes bottlenecks and trains the head of one RetrainJob"
EXPOSE 9464
ENTRYPOINT ["/opt/retrainer/bin/python", "-m", "retrainer_trainer"]
COPY --from=trainer-tensorflow-packages /opt/retrainer /opt/retrainer
COPY --from=trainer-program /app /app
