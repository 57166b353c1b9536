#!/usr/bin/env bash
# Makes the secrets of replica-set-compose.yml that are missing, in ./secrets or the directory named; harmless to
# repeat. TLS_NAME=tailrace.example.org names the host of the self-signed certificate; put your own over tls.crt
# and tls.key.
set -euo pipefail

place=${1:-secrets}
mkdir -p "$place"
# The directory keeps others out. The files themselves can be read by anybody: Docker Compose hands a file over
# with the owner and the mode that it has here, and each container runs as a user of its own.
chmod 700 "$place"
cd "$place"

make() { # NAME, unless it is there; its content comes from stdin, which is read to its end either way
  local content
  content=$(cat)
  [[ -s "$1" ]] || echo "$content" >"$1"
  chmod 444 "$1"
}

random() { openssl rand -hex 24; }

openssl rand -base64 756 | make mongo_keyfile
random | make mongo_root_password
echo "mongodb://tailrace:$(random)@mongo1:27017,mongo2:27017,mongo3:27017/?replicaSet=rs0&authSource=admin" |
  make mongodb_url
echo "redis://:$(random)@valkey:6379/0" | make redis_url
sed 's|^redis://:\(.*\)@.*|requirepass \1|' redis_url | make valkey_conf
random | make jwt_secret
random | make grafana_password

if [[ ! -s tls.crt ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=${TLS_NAME:-localhost}" \
    -addext "subjectAltName=DNS:${TLS_NAME:-localhost},DNS:localhost,IP:127.0.0.1" \
    -keyout tls.key -out tls.crt 2>/dev/null
fi
chmod 444 tls.crt tls.key
