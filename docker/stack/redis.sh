#!/bin/sh
# Redis, with the users that redis_users.py made, who are in the volume beside the data: a start again forgets neither.
# No password is an argument. The administrator may set users and nothing else.
set -eu
umask 077
users=/data/users.acl
[ -f $users ] && grep -v '^user \(default\|admin\) ' $users > /tmp/others || : > /tmp/others
{ cat /tmp/others; echo "user default off"; echo "user admin on >$REDISCLI_AUTH -@all +acl|setuser +acl|deluser +acl|list +acl|save +ping +auth +hello"; } > $users
exec redis-server --bind 0.0.0.0 --protected-mode no --dir /data --save "" --appendonly yes --maxmemory-policy noeviction --aclfile $users
