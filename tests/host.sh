# Make a host of the namespaces in which this runs, with NAME and the files of HOSTS; it lasts until the standard input ends.
# Nothing can be written but /tmp, with an empty home in it, and /dev/shm. FOLDERS below /tmp stay, read-only.
set -e
hostname "$NAME"
ip link set lo up
mount -t tmpfs tmpfs /mnt
mkdir /mnt/home
cp "$HOSTS" /mnt/hosts
mount --bind /mnt/hosts /etc/hosts
for folder in $FOLDERS; do
    mkdir -p "/mnt/${folder#/tmp/}"
    mount --bind "$folder" "/mnt/${folder#/tmp/}"
    mount -o remount,bind,ro "/mnt/${folder#/tmp/}"
done
mount --move /mnt /tmp
mount -t tmpfs tmpfs /dev/shm
mount -o remount,bind,ro /
echo ready
exec cat
