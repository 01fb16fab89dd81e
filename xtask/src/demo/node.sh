# The demo's node: keeps the namespaces alive that its containers run in, until its standard input is closed.
# Arguments: the folder of the pod's volumes.
set -eu
# What a container mounts Bidirectional appears here, and from here in the containers with HostToContainer.
mount --bind "$1" "$1"
mount --make-shared "$1"
# Of this machine, not of the new process namespace: /proc is still the machine's.
read -r process _ </proc/self/stat
echo "$process"
read -r _ || true
