# consumer: a right, and nothing else. Exactly "update" on a path where nothing is mounted; never the mount itself.
path "${right}" { capabilities = ["update"] }
