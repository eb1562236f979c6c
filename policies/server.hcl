# server: issues bundles and leases, judges consumers. Reads the secrets of its accounts; changes no account.
path "${mount}/data/accounts/+"    { capabilities = ["read"] }
path "${mount}/metadata/accounts/" { capabilities = ["list"] }
path "${mount}/data/profiles/+"    { capabilities = ["read"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }

path "${mount}/data/keys/${account}/+"      { capabilities = ["read"] }
path "${mount}/data/passwords/${account}/+" { capabilities = ["read"] }

# Keys that sign leases and tickets: made once, by whoever needs one first, and never overwritten
path "${mount}/data/signers/lease*"      { capabilities = ["create", "read"] }
path "${mount}/data/signers/ticket*"     { capabilities = ["create", "read"] }
path "${mount}/metadata/signers/lease*"  { capabilities = ["read"] }
path "${mount}/metadata/signers/ticket*" { capabilities = ["read"] }
path "${mount}/metadata/signers/"        { capabilities = ["list"] }

# Who holds what
path "${mount}/data/consumers/+"    { capabilities = ["create", "read", "update"] }
path "${mount}/metadata/consumers/" { capabilities = ["list"] }

# What must never change: create, and nothing that overwrites
path "${mount}/data/revocations/+"           { capabilities = ["create", "read"] }
path "${mount}/metadata/revocations/+"       { capabilities = ["read"] }
path "${mount}/metadata/revocations/"        { capabilities = ["list"] }
path "${mount}/data/evidence/issued/+/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/evidence/issued/+/+" { capabilities = ["read"] }
path "${mount}/metadata/evidence/issued/+/"  { capabilities = ["list"] }

# Who asks, and may they
path "sys/capabilities"     { capabilities = ["update"] }
path "auth/token/lookup"    { capabilities = ["update"] }
path "identity/entity/id/+" { capabilities = ["read"] }
