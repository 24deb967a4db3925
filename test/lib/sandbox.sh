# sandbox.sh: sourced by test/check-all and test/demo.
#
# Servers, engines, containers and networks of a test run live in Linux
# namespaces of their own (processes, mounts, network, IPC).  When the first
# process of such a sandbox ends, for whatever reason, the kernel ends all others
# and drops their mounts and links, so nothing can be left behind by a test that
# failed, hung or was killed.  What the kernel does not drop, a folder and empty
# control groups, sandbox_end removes.  No address, port, bridge or firewall rule
# of the machine is touched, and none of its services is in the way.

# The user that PostgreSQL and the test scripts run as: a server refuses root.
CM_USER=${CM_USER:-cmtest}

sandbox_fail()
{
    echo "${0##*/}: $*" >&2
    exit 1
}

# Checks what can be checked before anything is changed.
sandbox_require_root()
{
    ((EUID == 0)) || sandbox_fail "must be run as root: it starts Docker engines, and PostgreSQL as user $CM_USER.
Without root: make unit, make lint, and make installcheck against a server of yours."
    unshare --mount --pid --net --ipc --fork true 2>/dev/null ||
        sandbox_fail "this machine does not let root make namespaces; a container needs --privileged for this"
}

# Makes $CM_SANDBOX, a folder with a short path (a unix socket's path has at
# most 107 bytes), and the user.  sandbox_end undoes it at exit.
sandbox_begin()
{
    id -u "$CM_USER" > /dev/null 2>&1 ||
        useradd --system --user-group --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin "$CM_USER" || sandbox_fail "could not create user $CM_USER"
    sandbox_sweep
    CM_SANDBOX=$(mktemp -d /tmp/cm-XXXXXX)
    echo $$ > "$CM_SANDBOX/owner"
    export CM_SANDBOX CM_USER
    sandbox_pid=
    trap sandbox_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    chmod 755 "$CM_SANDBOX"
    install -d -o "$CM_USER" -g "$CM_USER" "$CM_SANDBOX/tmp"
}

# Copies the source tree, less what was built in it, to $CM_SANDBOX/src, so that
# neither root's nor the user's files get into the work tree.
sandbox_copy_tree()
{
    mkdir "$CM_SANDBOX/src"
    tar -C "$1" --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
        --exclude='./sql/container_manager--*.sql' --exclude=./build --exclude=./tmp_check \
        --exclude=./results -cf - . | tar -C "$CM_SANDBOX/src" -xf -
    chown -R "$CM_USER:$CM_USER" "$CM_SANDBOX/src"
}

# Runs a command of the sandbox's user with an environment fit for tests.
as_user()
{
    setpriv --reuid "$CM_USER" --regid "$CM_USER" --init-groups -- \
        env HOME="$CM_SANDBOX/tmp" TMPDIR="$CM_SANDBOX/tmp" LC_ALL=C.UTF-8 "$@"
}

# Runs a command as root and first process of new namespaces; its exit status
# is ours.  It dies with this shell even if that is killed outright.
sandbox_run()
{
    local status=0
    setpriv --pdeathsig KILL \
        unshare --mount --pid --net --ipc --fork --kill-child --mount-proc -- "$@" &
    sandbox_pid=$!
    wait "$sandbox_pid" || status=$?
    sandbox_pid=
    return "$status"
}

sandbox_end()
{
    local first
    set +e    # go through all of it, whatever fails
    trap '' INT TERM HUP
    if [[ -n $sandbox_pid ]]; then
        # unshare's child is the first process, and dies with it: the end of all.
        first=$(pgrep -P "$sandbox_pid")
        kill -KILL "$sandbox_pid"
        wait "$sandbox_pid"
        while [[ -n $first && -d /proc/$first ]]; do sleep 0.02; done
    fi 2> /dev/null
    sandbox_remove "$CM_SANDBOX"
}

sandbox_remove()
{
    find /sys/fs/cgroup -depth -type d -path "*/${1##*/}*" -exec rmdir {} + 2> /dev/null
    rm -rf "$1"
}

# Folders of runs that were killed outright; their processes died with them.
sandbox_sweep()
{
    local file
    for file in /tmp/cm-??????/owner; do
        [[ -O $file && ! -d /proc/$(< "$file") ]] && sandbox_remove "${file%/owner}"
    done
    return 0
}

# Lays an empty layer over the folders that the extension is installed into, so
# that an installation is seen in the sandbox only, and several may run at once.
sandbox_cover_install_dirs()
{
    local dir layer=0
    for dir in "$("$1" --pkglibdir)" "$("$1" --sharedir)/extension"; do
        layer=$((layer + 1))
        mkdir -p "$CM_SANDBOX/layer$layer/upper" "$CM_SANDBOX/layer$layer/work"
        mount -t overlay -o "lowerdir=$dir,upperdir=$CM_SANDBOX/layer$layer/upper,workdir=$CM_SANDBOX/layer$layer/work" \
            overlay "$dir" || sandbox_fail "could not lay a layer over $dir"
    done
}

# What the first process in the sandbox does before anything else.
sandbox_enter()
{
    ip link set lo up
    # Names are looked up at 127.0.0.1, where a script may answer, or not.
    sysctl --quiet --write net.ipv4.ip_unprivileged_port_start=0
    echo 'nameserver 127.0.0.1' > "$CM_SANDBOX/resolv.conf"
    mount --bind "$CM_SANDBOX/resolv.conf" "$(realpath /etc/resolv.conf)"
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    # The machine's own engine and its registry log-ins have no part in a test.
    unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
    unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
    export DOCKER_CONFIG=$CM_SANDBOX/tmp/docker-config
}
