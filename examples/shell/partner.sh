#!/bin/sh
# Prints the partner's answer to each path on standard input: echo /fleets | ./partner.sh DIR BASE_URL
# curl.conf names the certificate and holds login and client_id, so that no secret is in the process list.
set -eu
while read -r path; do
    curl -q -sS -K "$1/current/curl.conf" "$2$path"
    echo
done
