# operator: a person at the command line. Edits accounts and stores passwords; reads neither keys nor passwords.
path "${mount}/data/accounts/+"    { capabilities = ["create", "read", "update"] }
path "${mount}/data/profiles/+"    { capabilities = ["create", "read", "update"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }

# Written once, into the next slot, and never read back
path "${mount}/data/passwords/+/+"     { capabilities = ["create"] }
path "${mount}/metadata/passwords/+/+" { capabilities = ["read"] }

path "${mount}/data/evidence/accounts/+/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/evidence/accounts/+/+" { capabilities = ["read"] }
