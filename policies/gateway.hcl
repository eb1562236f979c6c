# gateway: adds the partner's credentials to requests of consumers. Reads the secrets of its accounts, burns tickets.
path "${mount}/data/accounts/+"    { capabilities = ["read"] }
path "${mount}/metadata/accounts/" { capabilities = ["list"] }
path "${mount}/data/profiles/+"    { capabilities = ["read"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }

path "${mount}/data/keys/${account}/+"      { capabilities = ["read"] }
path "${mount}/data/passwords/${account}/+" { capabilities = ["read"] }

path "${mount}/data/signers/lease*"  { capabilities = ["read"] }
path "${mount}/data/signers/ticket*" { capabilities = ["read"] }
path "${mount}/metadata/signers/"    { capabilities = ["list"] }

path "${mount}/data/revocations/+"    { capabilities = ["read"] }
path "${mount}/metadata/revocations/" { capabilities = ["list"] }

# A ticket is burned, and use is recorded, by a write that can happen once
path "${mount}/data/tickets/+"               { capabilities = ["create"] }
path "${mount}/metadata/tickets/+"           { capabilities = ["read"] }
path "${mount}/data/evidence/issued/+/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/evidence/issued/+/+" { capabilities = ["read"] }
path "${mount}/metadata/evidence/issued/+/"  { capabilities = ["list"] }

path "sys/capabilities"     { capabilities = ["update"] }
path "auth/token/lookup"    { capabilities = ["update"] }
path "identity/entity/id/+" { capabilities = ["read"] }
