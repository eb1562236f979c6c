# canary: tries a candidate at the partner. Reads the secrets of its accounts, reserves each try in the account.
path "${mount}/data/accounts/+"    { capabilities = ["read", "update"] }
path "${mount}/data/profiles/+"    { capabilities = ["read"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }

path "${mount}/data/keys/${account}/+"      { capabilities = ["read"] }
path "${mount}/data/passwords/${account}/+" { capabilities = ["read"] }
path "${mount}/data/secrets/${account}/+/+" { capabilities = ["read"] }

# Where they may be sent: the first entry of the account's evidence, which no role can overwrite, and no other
path "${mount}/data/evidence/accounts/${account}/00000001" { capabilities = ["read"] }
