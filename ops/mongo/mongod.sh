#!/usr/bin/env bash
# The entry point of a mongod container; its arguments are mongod's. mongod refuses a keyfile that others may read,
# and a secret keeps the mode of the file on the host: so it gets a copy of its own.
set -euo pipefail

keyfile=${TMPDIR:-/tmp}/keyfile
rm -f "$keyfile"
(umask 077 && cat "${MONGO_KEYFILE:-/run/secrets/mongo_keyfile}" >"$keyfile")
exec mongod --keyFile "$keyfile" "$@"
