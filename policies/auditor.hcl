# auditor: reads who held what, and when. Nothing secret, and no writing at all.
path "${mount}/data/accounts/+"    { capabilities = ["read"] }
path "${mount}/metadata/accounts/" { capabilities = ["list"] }
path "${mount}/data/profiles/+"    { capabilities = ["read"] }
path "${mount}/metadata/profiles/" { capabilities = ["list"] }

path "${mount}/data/rotation/+"      { capabilities = ["read"] }
path "${mount}/metadata/rotation/"   { capabilities = ["list"] }
path "${mount}/metadata/locks/"      { capabilities = ["list"] }
path "${mount}/data/locks/rotation"  { capabilities = ["read"] }

path "${mount}/data/recipients"      { capabilities = ["read"] }

path "${mount}/data/consumers/+"    { capabilities = ["read"] }
path "${mount}/metadata/consumers/" { capabilities = ["list"] }

path "${mount}/data/evidence/accounts/+/+"    { capabilities = ["read"] }
path "${mount}/metadata/evidence/accounts/+/" { capabilities = ["list"] }
path "${mount}/metadata/evidence/accounts/"   { capabilities = ["list"] }
path "${mount}/data/evidence/issued/+/+"      { capabilities = ["read"] }
path "${mount}/metadata/evidence/issued/+/"   { capabilities = ["list"] }
path "${mount}/metadata/evidence/issued/"     { capabilities = ["list"] }
path "${mount}/data/evidence/heads/+"         { capabilities = ["read"] }
path "${mount}/metadata/evidence/heads/"      { capabilities = ["list"] }
