# administrator: sets the broker up and enrols consumers. Reads no secret. Writes policies and roles, which can grant any right.
path "sys/mounts"           { capabilities = ["read"] }
path "sys/mounts/${mount}"  { capabilities = ["read", "update"] }
path "${mount}/config"      { capabilities = ["read", "update"] }
path "${mount}/metadata/"   { capabilities = ["list"] }
path "sys/auth"             { capabilities = ["read"] }
path "sys/auth/${mount}"    { capabilities = ["read", "update", "sudo"] }
path "sys/mounts/auth/${mount}/tune" { capabilities = ["read", "update"] }
path "sys/policies/acl/"             { capabilities = ["list"] }
path "sys/policies/acl/${policy}"    { capabilities = ["read", "update"] }

# The logins of the roles, and their secret-ids
path "auth/${mount}/role/"                         { capabilities = ["list"] }
path "auth/${mount}/role/${role}"                  { capabilities = ["create", "read", "update"] }
path "auth/${mount}/role/${role}/role-id"          { capabilities = ["read"] }
path "auth/${mount}/role/${role}/secret-id"        { capabilities = ["update"] }
path "auth/${mount}/role/${role}/custom-secret-id" { capabilities = ["update"] }
path "auth/${mount}/role/${role}/secret-id/lookup" { capabilities = ["update"] }

# A JWT mount for each issuer
path "sys/auth/${jwt_mount}"    { capabilities = ["read", "update", "sudo"] }
path "auth/${jwt_mount}/config" { capabilities = ["read", "update"] }

# Consumers: `broker vault enrol`
path "sys/policies/acl/${prefix}/consumer-*" { capabilities = ["read", "update", "delete"] }
path "auth/${mount}/role/consumer-*"         { capabilities = ["create", "read", "update", "delete"] }
path "auth/${issuer}/role/consumer-*"        { capabilities = ["create", "read", "update", "delete"] }
path "identity/entity/name/${prefix}/*"      { capabilities = ["read", "update", "delete"] }
path "identity/entity-alias"                 { capabilities = ["update"] }
path "identity/lookup/entity"                { capabilities = ["update"] }

# A mount that others use: bounds of each document
path "${shared}/metadata/accounts/"   { capabilities = ["list"] }
path "${shared}/metadata/accounts/+"  { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/consumers/"  { capabilities = ["list"] }
path "${shared}/metadata/consumers/+" { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/locks/"      { capabilities = ["list"] }
path "${shared}/metadata/locks/+"     { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/rotation/"   { capabilities = ["list"] }
path "${shared}/metadata/rotation/+"  { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/profiles/"   { capabilities = ["list"] }
path "${shared}/metadata/profiles/+"  { capabilities = ["create", "read", "update"] }

# And see what it may do: `broker vault setup --dry-run`
path "sys/capabilities-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
