#!/bin/sh
# Redis with two users: the pipeline writes what is online, a predictor reads it. No password is an argument.
set -eu
cat > /tmp/users.acl <<A
user default off
user pipeline on >$PIPELINE ~* &* +@all -@dangerous +keys +config|get +info +flushdb
user predictor on >$PREDICTOR ~* resetchannels +@read +@connection +config|get +info +script|load +eval +evalsha +eval_ro +evalsha_ro
A
exec redis-server --bind 0.0.0.0 --protected-mode no --dir /data --save "" --appendonly no --maxmemory-policy noeviction --aclfile /tmp/users.acl
