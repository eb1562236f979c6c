# consumer: a right, and nothing else. Exactly "update" on a path where nothing is mounted; never the mount itself.
# It may end its own token: the service does so with those that it got for a JWT.
path "auth/token/revoke-self" { capabilities = ["update"] }

path "${right}" { capabilities = ["update"] }
