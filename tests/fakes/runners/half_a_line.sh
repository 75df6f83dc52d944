#!/bin/sh
# Half a line, and goes.
printf '{"jsonrpc":"2.0","id":1,"resu'
