#!/bin/sh
# Writes login and client_id for haproxy.cfg, and reloads HAProxy if it runs: reload.sh DIR CONFIG
# Run it before HAProxy starts, and as the agent's hook after each rotation.
set -eu
umask 077
at=$(readlink -f "$1/current")
target=/run/partner/haproxy.map
cat >"$target.new" <<END
authorization Basic $(printf %s:%s "$(cat "$at/username")" "$(cat "$at/password")" | base64 -w0)
client_id $(od -An -v -tx1 "$at/client_id" | tr -d '\n' | tr ' ' %)
END
mv "$target.new" "$target"
haproxy -q -c -f "$2"
if [ -s /run/haproxy.pid ]; then kill -USR2 "$(cat /run/haproxy.pid)"; fi
