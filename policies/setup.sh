#!/bin/sh
# shellcheck disable=SC2154  # the broker fills settings in
# Sets Vault or OpenBao up for the credential broker. Run it with VAULT_ADDR (BAO_ADDR) and a token that may read and
# write mounts and policies. It can be run again: it removes nothing. It ends before it changes anything if it would
# overwrite something that others made.
set -eu
vault=${VAULT_COMMAND:-$(command -v bao || command -v vault)}
@settings@
refuse() {
  echo "$1; nothing was changed" >&2
  echo "$hint" >&2
  exit 6
}
has() { printf '%s\n' "$1" | grep -Fxq -- "$2"; }
field() { "$vault" read -field="$2" "$1" 2>/dev/null || true; }
names() { "$vault" list "$1" 2>/dev/null | tail -n +3 | tr '\n' ' ' || true; }
nested() { # MOUNTS PATH: another mount within PATH, or around it
  if has "$1" "$2"; then return; fi
  for other in $1; do
    case $2 in "$other"*) refuse "$other is mounted, so $2 cannot be" ;; esac
    case $other in "$2"*) refuse "$other is mounted, so $2 cannot be" ;; esac
  done
}
require_own_policy() { # NAME BEGINNING
  if [ "$is_set_up" = yes ] || ! has "$policies" "$1"; then return; fi
  case $("$vault" policy read "$1") in
  "$2"*) ;;
  *) refuse "the policy $1 exists, and is not the broker's" ;;
  esac
}
require_own_jwt() { # PATH of the mount for an issuer
  nested "$logins" "$1/"
  if ! has "$logins" "$1/"; then return; fi
  [ "$(field sys/auth/"$1" type) $(field sys/auth/"$1" description)" = "jwt $description" ] ||
    refuse "auth/$1/ exists, and is not the broker's"
}
there() { "$vault" read "$1" >/dev/null 2>&1; }
settle() { # PATH: a new KV mount needs a moment
  for _ in 1 2 3 4 5 6 7 8 9 10; do if there "$1"; then break; fi; sleep 1; done
}

# Check what exists, by the rules of `broker vault setup`
mounts=$("$vault" secrets list)
logins=$("$vault" auth list)
policies=$("$vault" policy list)
mounts=$(printf '%s\n' "$mounts" | cut -d' ' -f1) logins=$(printf '%s\n' "$logins" | cut -d' ' -f1)
for other in $mounts; do
  case $other in "$rights"/*) refuse "$other is mounted, and the paths of the broker's rights must stay free" ;; esac
done
nested "$mounts" "$mount/"
nested "$logins" "$mount/"

shared_logins=no is_set_up=no
if has "$logins" "$mount/"; then
  [ "$(field sys/auth/"$mount" type)" = approle ] || refuse "auth/$mount/ is not an AppRole mount"
  if [ "$(field sys/auth/"$mount" description)" = "$description" ]; then
    is_set_up=yes
  else
    for role in $roles; do
      found=$(field auth/"$mount"/role/"$role" token_policies | tr -d '[]' | tr ' ' '\n')
      if has "$found" "$prefix/$role" && has "$found" "$prefix/base"; then is_set_up=yes; fi
    done
    for role in $(names auth/"$mount"/role); do
      case " $roles " in
      *" $role "*) [ $is_set_up = yes ] || refuse "auth/$mount/ has a role of others called $role" ;;
      *) case $is_set_up$role in yesconsumer-*) ;; *) shared_logins=yes ;; esac ;;
      esac
    done
  fi
fi

is_ours=no
if [ "$(field sys/mounts/"$mount" description)" = "$description" ]; then is_ours=yes; fi
if [ "$shared" = no ]; then
  if has "$mounts" "$mount/" && [ $is_ours = no ]; then
    refuse "broker vault setup did not make $mount/, and others may use it: $(names "$mount"/metadata)"
  fi
  [ $shared_logins$is_set_up != yesno ] ||
    refuse "broker vault setup did not make auth/$mount/, and others may use it: $(names auth/"$mount"/role)"
else
  has "$mounts" "$mount/" || refuse "there is no $mount/ to adopt"
  [ $is_ours = no ] || refuse "$mount/ is the broker's own: print this without --adopt-mount"
  case $(field sys/mounts/"$mount" type)$(field sys/mounts/"$mount" options) in
  *kv*version:2*) ;;
  *) refuse "$mount/ is not a mount of kv version 2" ;;
  esac
  case $(field "$mount"/config delete_version_after) in
  0s | '') ;;
  *) refuse "$mount/ deletes data after a time: keys and evidence would be lost" ;;
  esac
fi
@items@
# Fetch the login of each role. Its secret-id is in a wrapping: open it once, within the hour, on the role's host:
#   bao unwrap -field=secret_id WRAPPING >secret_id
# Every run makes new secret-ids, so it needs the word "logins"
if [ "${1-}" != logins ]; then
  echo "set up; next, for each role's role_id and wrapped secret_id, run it again with: logins" >&2
  exit 0
fi
for role in $roles; do
  role_id=$("$vault" read -field=role_id auth/"$mount"/role/"$role"/role-id)
  wrapping=$("$vault" write -force -wrap-ttl=1h -field=wrapping_token auth/"$mount"/role/"$role"/secret-id)
  echo "$role role_id=$role_id wrapping=$wrapping"
done
