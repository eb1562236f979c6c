# operator: a person at the command line. Edits accounts and stores passwords and other secrets; reads neither these nor keys.
path "${mount}/data/accounts/+"    { capabilities = ["create", "read", "update"] }
path "${mount}/metadata/accounts/" { capabilities = ["list"] }
path "${mount}/data/profiles/+"    { capabilities = ["create", "read", "update"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }
path "${shared}/metadata/accounts/+" { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }
path "${shared}/metadata/profiles/+" { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }

# Written once, into the next slot, and never read back
path "${mount}/data/passwords/+/+"     { capabilities = ["create"] }
path "${mount}/metadata/passwords/+/+" { capabilities = ["read"] }
path "${mount}/data/secrets/+/+/+"     { capabilities = ["create"] }
path "${mount}/metadata/secrets/+/+/+" { capabilities = ["read"] }

# Passwords for mail servers: written once, into the next slot, and never read back. Those before are destroyed
path "${mount}/data/mail/+/+"     { capabilities = ["create"] }
path "${mount}/metadata/mail/+/+" { capabilities = ["read"] }
path "${mount}/metadata/mail/+/"  { capabilities = ["list"] }
path "${mount}/destroy/mail/+/+"  { capabilities = ["update"] }

# The leases that a person ends
path "${mount}/data/consumers/+"    { capabilities = ["read", "update"] }
path "${mount}/metadata/consumers/" { capabilities = ["list"] }

path "${mount}/data/evidence/accounts/+/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/evidence/accounts/+/+" { capabilities = ["read"] }

# The change document: tells services that consumers must hear of something
path "${mount}/data/changes"       { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/changes" { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }
