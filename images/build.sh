#!/usr/bin/env bash
# Makes the images that the examples and the tests use, from Debian's packages, with no container engine:
# busybox, nginx, redis, web:v1, web:v2 and pause, each as an archive in the form of `docker save`.
#
#   images/build.sh [DIRECTORY]        default: .cache/images
#
# Packages are downloaded and unpacked, never installed: nothing is started on this machine.
set -euo pipefail

out=$(realpath -m "${1:-"$(dirname "$0")/../.cache/images"}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
apt-cache show nginx-light >/dev/null 2>&1 || apt-get update -qq

say() { printf '  %s\n' "$*"; }

# Downloads packages with the libraries they need and unpacks them into a root file system.
unpack() { # ROOT PACKAGE...
    local root=$1 names
    shift
    names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "$@" | grep -E '^[a-z0-9]' |
        grep -E '^(lib|lua-|zlib)' | grep -vE '^(libc-bin|libpam|libperl|libdebconf|libpython)' | grep -v ':' | sort -u)
    mkdir -p "$work/packages" "$root"
    (cd "$work/packages" && apt-get download -qq "$@" $names 2>/dev/null)
    for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$root"; done
    rm -rf "$work/packages"
}

# Keeps of an unpacked root what the given programs load, and drops the rest of the libraries and all documentation.
thin() { # ROOT PROGRAM...
    local root=$1 loader
    shift
    rm -rf "$root"/usr/share/{doc,man,locale,lintian,bug,doc-base} "$root"/lib/systemd "$root"/usr/lib/systemd
    # A merged /usr keeps every path that the loader may try valid.
    for directory in bin sbin lib lib64; do
        if [ -d "$root/$directory" ] && [ ! -L "$root/$directory" ]; then
            mkdir -p "$root/usr/$directory"
            cp -a "$root/$directory/." "$root/usr/$directory/"
            rm -rf "${root:?}/$directory"
        fi
        [ -e "$root/usr/$directory" ] && ln -sfn "usr/$directory" "$root/$directory"
    done
    loader=$(find "$root/usr/lib" "$root/usr/lib64" -name 'ld-linux*' 2>/dev/null | head -1)
    local needed="$work/needed"
    : >"$needed"
    for program in "$@"; do
        chroot "$root" "${loader#"$root"}" --list "$program" | sed -nE 's/.* => ([^ ]+) .*/\1/p' |
            while read -r library; do readlink -f "$root$library"; done >>"$needed"
    done
    find "$root/usr/lib" -name '*.so*' -type f ! -name 'ld-linux*' | while read -r library; do
        grep -qxF "$library" "$needed" || rm -f "$library"
    done
    find "$root/usr/lib" -xtype l ! -name 'ld-linux*' -delete
    find "$root" -name '*.a' -delete
    mkdir -p "$root/tmp" "$root/run" "$root/proc" "$root/sys" "$root/dev"
    chmod 1777 "$root/tmp"
}

users() { # ROOT
    mkdir -p "$1/etc"
    printf 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nredis:x:999:999::/data:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nwww-data:x:33:\nredis:x:999:\nnogroup:x:65534:\n' >"$1/etc/group"
}

busybox_into() { # ROOT
    local root=$1
    mkdir -p "$root/bin"
    cp "$work/busybox/bin/busybox" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
    done
}

# Packs a root file system as a layer with times and owners fixed, so that the same input is the same digest.
layer() { # ROOT FILE
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .
}

# Writes an archive as `docker save` does.
archive() { # NAME CONFIG_JSON LAYER...
    local name=$1 config=$2 file layers='' diffs='' stage="$work/stage"
    shift 2
    rm -rf "$stage" && mkdir -p "$stage"
    for file in "$@"; do
        local digest
        digest=$(sha256sum "$file" | cut -d' ' -f1)
        cp "$file" "$stage/$digest.tar"
        layers="$layers${layers:+,}\"$digest.tar\""
        diffs="$diffs${diffs:+,}\"sha256:$digest\""
    done
    printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(dpkg --print-architecture)" "$config" "$diffs" >"$stage/config.json"
    local id
    id=$(sha256sum "$stage/config.json" | cut -d' ' -f1)
    mv "$stage/config.json" "$stage/$id.json"
    printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":[%s]}]' "$id" "$name" "$layers" >"$stage/manifest.json"
    local target="$out/${name//[:\/]/-}.tar"
    tar --sort=name --mtime=@0 -C "$stage" -cf "$target.part" .
    mv "$target.part" "$target"
    say "$name ($(du -h "$target" | cut -f1))"
}

path='"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"'

mkdir -p "$work/busybox" && (cd "$work" && apt-get download -qq busybox-static 2>/dev/null && dpkg-deb -x busybox-static*.deb busybox && rm busybox-static*.deb)
[ -e "$work/busybox/bin/busybox" ] || { mkdir -p "$work/busybox/bin"; cp "$work/busybox/usr/bin/busybox" "$work/busybox/bin/"; }

root="$work/root-busybox"
mkdir -p "$root"/{etc,tmp,root,proc,sys,dev,var/run}
chmod 1777 "$root/tmp"
users "$root" && busybox_into "$root"
# Though linked statically, busybox loads the C library to resolve names.
mkdir -p "$work/libc" && (cd "$work" && apt-get download -qq libc6 2>/dev/null && dpkg-deb -x libc6*.deb libc && rm libc6*.deb)
for library in $(cd "$work/libc" && find . \( -name 'libc.so.*' -o -name 'libnss_*.so.*' -o -name 'libresolv.so.*' -o -name 'ld-linux*' \)); do
    mkdir -p "$root/$(dirname "$library")"
    cp -a "$work/libc/$library" "$root/$library"
done
layer "$root" "$work/busybox.tar"
archive busybox:latest "{\"Env\":[$path],\"Cmd\":[\"sh\"]}" "$work/busybox.tar"
# Outside runtimes such as containerd hold a pod's namespaces with this one.
archive pause:3.10 "{\"Env\":[$path],\"Entrypoint\":[\"/bin/sleep\",\"2147483647\"]}" "$work/busybox.tar"

root="$work/root-nginx"
unpack "$root" nginx-light nginx nginx-common
thin "$root" /usr/sbin/nginx
users "$root" && busybox_into "$root"
rm -rf "$root"/etc/nginx/{sites-*,modules-enabled,snippets,conf.d,nginx.conf} "$root"/usr/lib/nginx "$root"/usr/share/nginx/modules*
mkdir -p "$root"/var/{log/nginx,lib/nginx,www} "$root/etc/nginx/conf.d"
cat >"$root/etc/nginx/nginx.conf" <<'CONF'
worker_processes 1;
error_log /dev/stderr warn;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    access_log off;
    include mime.types;
    include conf.d/*.conf;
}
CONF
cat >"$root/etc/nginx/conf.d/default.conf" <<'CONF'
server {
    listen 80 default_server;
    default_type text/plain;
    location / { return 200 "nginx on $hostname\n"; }
}
CONF
layer "$root" "$work/nginx.tar"
# nginx finishes its requests on SIGQUIT and drops them on SIGTERM.
nginx_config="{\"Env\":[$path],\"Cmd\":[\"nginx\",\"-g\",\"daemon off;\"],\"ExposedPorts\":{\"80/tcp\":{}},\"StopSignal\":\"SIGQUIT\"}"
archive nginx:latest "$nginx_config" "$work/nginx.tar"

for version in v1 v2; do
    root="$work/root-web-$version"
    mkdir -p "$root/etc/nginx/conf.d"
    cat >"$root/etc/nginx/conf.d/default.conf" <<CONF
server {
    listen 80 default_server;
    default_type text/plain;
    location / { return 200 "web $version on \$hostname\n"; }
}
CONF
    layer "$root" "$work/web-$version.tar"
    archive "web:$version" "$nginx_config" "$work/nginx.tar" "$work/web-$version.tar"
done

root="$work/root-redis"
unpack "$root" redis-server redis-tools
thin "$root" /usr/bin/redis-server /usr/bin/redis-cli
users "$root" && busybox_into "$root"
rm -rf "$root"/etc/{init.d,logrotate.d,default,redis} "$root"/usr/share/{lua,perl5,bash-completion}
mkdir -p "$root/data"
layer "$root" "$work/redis.tar"
archive redis:latest "{\"Env\":[$path],\"Cmd\":[\"redis-server\",\"--save\",\"\",\"--dir\",\"/data\",\"--protected-mode\",\"no\"],\"ExposedPorts\":{\"6379/tcp\":{}},\"WorkingDir\":\"/data\"}" "$work/redis.tar"
