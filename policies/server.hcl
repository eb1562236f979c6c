# server: issues bundles and leases, judges consumers. Reads the secrets of its accounts; changes no account.
path "${mount}/data/accounts/+"    { capabilities = ["read"] }
path "${mount}/metadata/accounts/" { capabilities = ["list"] }
path "${mount}/data/profiles/+"    { capabilities = ["read"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }

path "${mount}/data/keys/${account}/+"      { capabilities = ["read"] }
path "${mount}/data/passwords/${account}/+" { capabilities = ["read"] }
path "${mount}/data/secrets/${account}/+/+" { capabilities = ["read"] }

# What changed that those who wait must hear of
path "${mount}/data/changes" { capabilities = ["read"] }

# Where they may be sent: the first entry of the account's evidence, which no role can overwrite, and no other
path "${mount}/data/evidence/accounts/${account}/00000001" { capabilities = ["read"] }

# The keys that sign leases: the first is made when it is needed; a rotation is not the server's
path "${mount}/data/signers/lease"     { capabilities = ["create", "read"] }
path "${mount}/metadata/signers/lease" { capabilities = ["read"] }

# Who holds what
path "${mount}/data/consumers/+" { capabilities = ["create", "read", "update"] }
path "${shared}/metadata/consumers/+" { capabilities = ["create", "update"], allowed_parameters = { "cas_required" = [true], "max_versions" = ["10"] } }

# What must never change: create, and nothing that overwrites. Metadata tells a slot that is taken from a missing right
path "${mount}/data/evidence/issued/+/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/evidence/issued/+/+" { capabilities = ["read"] }

# Who asks, and may they
path "sys/capabilities"     { capabilities = ["update"] }
path "auth/token/lookup"    { capabilities = ["update"] }
path "identity/entity/id/+" { capabilities = ["read"] }

# Have the service's own certificate signed, if serve.tls_pki names a role of Vault's PKI
path "${pki}" { capabilities = ["update"] }
