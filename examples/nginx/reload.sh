#!/bin/sh
# Writes the credentials for nginx.conf, and reloads nginx if it runs: reload.sh DIR [OPTION OF NGINX]…
# Run it before nginx starts, and as the agent's hook after each rotation.
set -eu
umask 077
at=$(readlink -f "$1/current")
target=/run/partner/credentials.conf
shift
cat >"$target.new" <<END
proxy_ssl_certificate $at/tls.crt;
proxy_ssl_certificate_key $at/tls.key;
proxy_ssl_trusted_certificate $at/ca.crt;
proxy_set_header Authorization "Basic $(printf %s:%s "$(cat "$at/username")" "$(cat "$at/password")" | base64 -w0)";
set \$partner_client_id $(od -An -v -tx1 "$at/client_id" | tr -d '\n' | tr ' ' %);
END
mv "$target.new" "$target"
nginx -q -t "$@"
if [ -s /run/nginx.pid ]; then nginx -s reload "$@"; fi
