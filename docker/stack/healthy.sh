#!/bin/bash
# Whether an HTTP server answers a GET as it should: healthy.sh HOST PORT PATH [PART OF THE ANSWER]. No Python: asked of
# fifteen containers every few seconds, that alone would keep a core busy.
exec 3<> "/dev/tcp/$1/$2" || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$3" >&3
answer=$(timeout 4 cat <&3)
[[ $answer == HTTP/1.?" 200"* && $answer == *"$4"* ]]
