"""The cluster's own authority: who a component or a person is, is what its certificate says."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

from tests.cluster.devcluster.failure import ClusterError

# openssl reads the system's configuration otherwise, which makes every certificate an authority.
_CONFIGURATION = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
"""
_DAYS = "365"


class Authority:
    """Keys and certificates below one folder; what is there is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        self._configuration = folder / "openssl.cnf"

    def prepare(self) -> None:
        """Make the authority and the key that signs ServiceAccounts' tokens."""
        if self.verification_key.exists():
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._configuration.write_text(_CONFIGURATION)
        self._request(self.certificate, self._key, "/CN=retrainer-devcluster", "authority", [])
        _openssl("genpkey", *_EC, "-out", str(self.signing_key))
        _openssl(
            "pkey", "-pubout", "-in", str(self.signing_key), "-out", str(self.verification_key)
        )

    @property
    def signing_key(self) -> Path:
        return self.folder / "service-accounts.key"

    @property
    def verification_key(self) -> Path:
        """Apart from the other: the API server reads no public key out of openssl's format."""
        return self.folder / "service-accounts.pub"

    def issue(
        self, file: str, user: str, groups: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> tuple[Path, Path]:
        """Certificate and key for a user of some groups, or for a server with these names."""
        certificate, key = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        if not (certificate.exists() and key.exists()):
            subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
            signing = ["-CA", str(self.certificate), "-CAkey", str(self._key)]
            if names:
                signing += ["-addext", "subjectAltName=" + ",".join(names)]
            self._request(certificate, key, subject, "leaf", signing)
        return certificate, key

    def _request(
        self, certificate: Path, key: Path, subject: str, kind: str, more: list[str]
    ) -> None:
        command = ["req", "-x509", "-config", str(self._configuration), "-extensions", kind]
        command += ["-newkey", "ec", *_EC[2:], "-noenc", "-days", _DAYS, "-subj", subject]
        _openssl(*command, *more, "-keyout", str(key), "-out", str(certificate))


def kubeconfig(server: str, authority: Path, user: dict[str, str], namespace: str) -> str:
    """The text of a kubeconfig (JSON is YAML), with everything inside: it can be moved about."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "devcluster",
            "clusters": [
                {
                    "name": "devcluster",
                    "cluster": {
                        "server": server,
                        "certificate-authority-data": inline(authority),
                    },
                }
            ],
            "users": [{"name": "user", "user": user}],
            "contexts": [
                {
                    "name": "devcluster",
                    "context": {"cluster": "devcluster", "user": "user", "namespace": namespace},
                }
            ],
        },
        indent=1,
    )


def inline(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


_EC = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def _openssl(*arguments: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ClusterError("openssl is needed for the cluster's certificates: install it.")
    done = subprocess.run([openssl, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"openssl {' '.join(arguments)} failed:\n{done.stderr}")
