# rotator: drives renewal. Makes and destroys keys, promotes and retires. Reads and writes no password or other secret, hands nothing out.
path "${mount}/data/accounts/+"    { capabilities = ["read", "update"] }
path "${mount}/metadata/accounts/" { capabilities = ["list"] }
path "${mount}/data/profiles/+"    { capabilities = ["read"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }

# A key is written once. Destroying takes the data of every version; metadata stays, so a number never comes back
path "${mount}/data/keys/${account}/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/keys/${account}/+" { capabilities = ["read"] }
path "${mount}/destroy/keys/${account}/+"  { capabilities = ["update"] }

path "${mount}/metadata/passwords/${account}/+" { capabilities = ["read"] }
path "${mount}/destroy/passwords/${account}/+"  { capabilities = ["update"] }
path "${mount}/metadata/secrets/${account}/+/+" { capabilities = ["read"] }
path "${mount}/destroy/secrets/${account}/+/+"  { capabilities = ["update"] }

path "${mount}/data/evidence/accounts/+/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/evidence/accounts/+/+" { capabilities = ["read"] }

# The keys that sign leases, in one document; its old versions are destroyed
path "${mount}/data/signers/lease"     { capabilities = ["read", "update"] }
path "${mount}/metadata/signers/lease" { capabilities = ["read"] }
path "${mount}/destroy/signers/lease"  { capabilities = ["update"] }

# Passwords for mail servers: it sends requests, and reads replies
path "${mount}/data/mail/+/+"    { capabilities = ["read"] }
path "${mount}/metadata/mail/+/" { capabilities = ["list"] }

# Stragglers
path "${mount}/data/consumers/+"    { capabilities = ["read"] }
path "${mount}/metadata/consumers/" { capabilities = ["list"] }

# What the scheduler and mail did for each account, and the scheduler's lock
path "${mount}/data/rotation/+"      { capabilities = ["create", "read", "update"] }
path "${mount}/data/locks/rotation"  { capabilities = ["create", "read", "update"] }
path "${mount}/data/idle"            { capabilities = ["create", "read", "update"] }
path "${mount}/detailed-metadata/accounts/" { capabilities = ["list"] }
path "${shared}/metadata/idle"           { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }
path "${shared}/metadata/rotation/+"     { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }
path "${shared}/metadata/locks/rotation" { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }

# The last mail of the watched mailbox that was read
path "${mount}/data/mailbox"         { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/mailbox"    { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }

# Recipients of notices
path "${mount}/data/recipients"      { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/recipients" { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }

# Sign requests of accounts for which broker.toml names a role of Vault's PKI
path "${pki}" { capabilities = ["update"] }

# The change document: tells services that consumers must hear of something
path "${mount}/data/changes"       { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/changes" { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }
