# anchor: signs where every chain of evidence stands. Cannot write what it signs.
path "${mount}/data/evidence/accounts/+/+"    { capabilities = ["read"] }
path "${mount}/metadata/evidence/accounts/+/" { capabilities = ["list"] }
path "${mount}/metadata/evidence/accounts/"   { capabilities = ["list"] }
path "${mount}/data/evidence/issued/+/+"      { capabilities = ["read"] }
path "${mount}/metadata/evidence/issued/+/"   { capabilities = ["list"] }
path "${mount}/metadata/evidence/issued/"     { capabilities = ["list"] }

path "${mount}/data/evidence/heads/+"     { capabilities = ["create", "read"] }
path "${mount}/metadata/evidence/heads/+" { capabilities = ["read"] }
path "${mount}/metadata/evidence/heads/"  { capabilities = ["list"] }

path "${mount}/data/signers/anchor"     { capabilities = ["create", "read"] }
path "${mount}/metadata/signers/anchor" { capabilities = ["read"] }
