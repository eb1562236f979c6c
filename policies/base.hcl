# Every role: look after its own token. Attached beside the role's policy, in place of Vault's "default".
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
# and see what it may do: `broker doctor`
path "sys/capabilities-self"  { capabilities = ["update"] }
