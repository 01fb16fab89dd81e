# One container of the demo's node: makes the paths that it expects, all in its own mount namespace, then becomes its program.
# Arguments: ROOT PID-FILE USER CLIENT STATE [VOLUME PATH PROPAGATION ACCESS]... -- PROGRAM [ARGUMENT]...
# STATE is the folder of the file system's metadata and data; empty for a container that must not reach it but through a mount.
set -eu
root=$1 user=$3 client=$4 state=$5
read -r process _ </proc/self/stat
echo "$process" >"$2"
shift 5

mount -t tmpfs -o mode=0755 container "$root"
cd "$root"
mkdir usr proc dev etc
mkdir -m 1777 tmp
mount --bind -o ro /usr usr
for folder in bin sbin lib lib32 lib64; do
  if [ -L "/$folder" ]; then
    cp -P "/$folder" "$folder"
  elif [ -d "/$folder" ]; then
    mkdir "$folder"
    mount --bind -o ro "/$folder" "$folder"
  fi
done
mount -t proc proc proc
for device in null zero urandom ${state:+fuse}; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done

if [ -n "$state" ]; then
  mount -t tmpfs -o mode=0755 programs usr/local/bin
  : >usr/local/bin/juicefs
  mount --bind "$client" usr/local/bin/juicefs
  mkdir -p ".$state"
  mount --bind "$state" ".$state"
fi

while [ "$1" != -- ]; do
  mkdir -p ".$2"
  mount --rbind "$1" ".$2"
  mount "--make-$3" ".$2"
  [ "$4" = rw ] || mount -o "remount,bind,ro" ".$2"
  shift 4
done
shift

unset PWD OLDPWD
exec chroot --userspec="+$user:+$user" --groups= . "$@"
