"""Reads packages for OpenWrt as opkg reads them, without using anything that wrote them.

    opkg.py check FILE                  what is wrong with a package; nothing printed means nothing found
    opkg.py field FILE NAME             a field of its control file
    opkg.py install ROOT FILE           installs or upgrades below ROOT, scripts run in a chroot
    opkg.py remove ROOT NAME

As opkg does it: a file that the package names in `conffiles` and the owner has changed stays, and the package's own is put
beside it as FILE-opkg; files that a new version no longer has go; at an upgrade the old version's prerm runs first, and
PKG_UPGRADE is 1.
"""

import gzip
import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import tarfile

ALLOWED_SCRIPTS = {"postinst", "prerm", "postinst-pkg", "prerm-pkg", "preinst", "postrm"}
REQUIRED_FIELDS = {"Package", "Version", "Architecture", "Installed-Size", "Description"}


class Package:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            raw = file.read()
        outer = read_tar(raw)
        self.outer_names = [member.name for member, _ in outer]
        parts = {member.name.removeprefix("./"): content for member, content in outer}
        self.version = parts["debian-binary"]
        self.control = read_tar(parts["control.tar.gz"])
        self.data = read_tar(parts["data.tar.gz"])
        self.headers = [raw, parts["control.tar.gz"], parts["data.tar.gz"]]
        self.data_size = len(gzip.decompress(parts["data.tar.gz"]))
        self.info = {m.name.removeprefix("./"): content for m, content in self.control if m.isfile()}
        self.fields = parse_control(self.info["control"].decode())
        self.conffiles = self.info.get("conffiles", b"").decode().split()

    def files(self):
        """Everything but folders, by its path on the router."""
        return {"/" + m.name.removeprefix("./"): (m, content) for m, content in self.data if not m.isdir()}


def read_tar(raw):
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(raw)), mode="r:") as tar:
        return [(member, tar.extractfile(member).read() if member.isfile() else None) for member in tar]


def parse_control(text):
    fields = {}
    for line in text.rstrip("\n").split("\n"):
        name, colon, value = line.partition(": ")
        if not colon or not re.fullmatch(r"[A-Z][A-Za-z-]*", name) or name in fields:
            raise ValueError(f"control: {line!r}")
        fields[name] = value
    return fields


def check(path):
    package = Package(path)
    problems = []

    def must(holds, what):
        if not holds:
            problems.append(what)

    fields = package.fields
    must(package.outer_names == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"], f"members {package.outer_names}")
    must(package.version == b"2.0\n", f"debian-binary {package.version!r}")
    must(REQUIRED_FIELDS <= fields.keys(), f"missing fields {REQUIRED_FIELDS - fields.keys()}")
    name = f"{fields['Package']}_{fields['Version']}_{fields['Architecture']}.ipk"
    must(os.path.basename(path) == name, f"should be called {name}")
    must(re.fullmatch(r"[0-9][0-9a-z._]*-r[0-9]+", fields["Version"]), "the version is none for apk")
    must(re.fullmatch(r"[a-z0-9-]+(, [a-z0-9-]+)*", fields.get("Depends", "x")), f"Depends: {fields.get('Depends')}")
    must(int(fields["Installed-Size"]) == package.data_size, "Installed-Size")
    for header in package.headers:
        must(header[4:8] == bytes(4) and header[3] == 0, "a time or a name in a gzip header")
    must(set(package.info) - ALLOWED_SCRIPTS <= {"control", "conffiles"}, f"control has {set(package.info)}")
    for member, content in package.control:
        script = member.name.removeprefix("./") in ALLOWED_SCRIPTS
        must(not script or (content.startswith(b"#!/bin/sh\n") and member.mode == 0o755), f"script {member.name}")
    paths = [member.name for member, _ in package.data]
    must(len(paths) == len(set(paths)), "a path twice")
    must(paths[:1] == ["./"] or paths[:1] == ["."], "the first member is not the root")
    folders = {"."} | {m.name.removesuffix("/") for m, _ in package.data if m.isdir()}
    for member, content in package.data + package.control:
        where = member.name
        must(member.uid == member.gid == 0 and not member.uname and not member.gname, f"owner of {where}")
        must(member.mtime == 0, f"time of {where}")
        must(member.isfile() or member.isdir() or member.issym(), f"kind of {where}")
        must(".." not in where.split("/") and (where + "/").startswith("./"), f"path {where}")
        must(not member.mode & (stat.S_ISUID | stat.S_ISGID | 0o022) or member.issym(), f"mode of {where}")
    for member, _ in package.data:
        must(os.path.dirname(member.name.removesuffix("/")) in folders | {""}, f"no folder for {member.name}")
    files = package.files()
    for conffile in package.conffiles:
        must(conffile in files, f"conffile {conffile} is not in the package")
    must(not any(path_.startswith("/lib/apk/") for path_ in files), "files of apk's")
    for path_, (member, content) in files.items():
        if path_.startswith("/etc/") and not path_.startswith(("/etc/init.d", "/etc/uci-defaults", "/etc/capabilities")):
            must(path_ in package.conffiles, f"{path_} would be overwritten")
        if content and content.startswith(b"#!"):
            must(member.mode & 0o111, f"{path_} is a script that cannot be run")
    return problems


def info_path(root, name, what):
    return f"{root}/usr/lib/opkg/info/{name}.{what}"


def run(root, name, what, argument, upgrade):
    if os.path.exists(info_path(root, name, what)):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PKG_UPGRADE": "1" if upgrade else "0"}
        command = ["chroot", root, "/bin/sh", info_path("", name, what), argument]
        subprocess.run(command, env=environment, check=True)


def digest(content):
    return hashlib.sha256(content).hexdigest()


def on_disk(path):
    with open(path, "rb") as file:
        return file.read()


def read_list(root, name, what):
    try:
        return on_disk(info_path(root, name, what)).decode().splitlines()
    except FileNotFoundError:
        return []


def install(root, path):
    package = Package(path)
    name = package.fields["Package"]
    before = read_list(root, name, "list")
    digests = dict(line.split() for line in read_list(root, name, "digests"))
    if before:
        run(root, name, "prerm", "upgrade", True)
    for member, content in package.data:
        target = root + "/" + member.name
        if member.isdir():
            os.makedirs(target, exist_ok=True)
        elif member.issym():
            if os.path.lexists(target):
                os.remove(target)
            os.symlink(member.linkname, target)
        else:
            conffile = "/" + member.name.removeprefix("./") in package.conffiles
            if conffile and os.path.exists(target):
                mine = digest(on_disk(target))
                if mine != digests.get("/" + member.name.removeprefix("./")) and mine != digest(content):
                    target += "-opkg"
            with open(target + ".new", "wb") as file:
                file.write(content)
            os.chmod(target + ".new", member.mode)
            os.rename(target + ".new", target)
    for old in set(before) - package.files().keys():
        os.remove(root + old)
    os.makedirs(os.path.dirname(info_path(root, name, "list")), exist_ok=True)
    for what, content in package.info.items():
        with open(info_path(root, name, what), "wb") as file:
            file.write(content)
    with open(info_path(root, name, "list"), "w") as file:
        file.writelines(f"{path}\n" for path in sorted(package.files()))
    with open(info_path(root, name, "digests"), "w") as file:
        files = package.files()
        file.writelines(f"{path} {digest(files[path][1])}\n" for path in package.conffiles)
    run(root, name, "postinst", "configure", bool(before))


def remove(root, name):
    run(root, name, "prerm", "remove", False)
    digests = dict(line.split() for line in read_list(root, name, "digests"))
    for path in read_list(root, name, "list"):
        target = root + path
        changed = path in digests and os.path.exists(target) and digest(on_disk(target)) != digests[path]
        if os.path.lexists(target) and not changed:
            os.remove(target)
            folder = os.path.dirname(target)
            while folder != root and not os.listdir(folder):
                os.rmdir(folder)
                folder = os.path.dirname(folder)
    info = os.path.dirname(info_path(root, name, "list"))
    for file in os.listdir(info):
        if file.rpartition(".")[0] == name:
            os.remove(f"{info}/{file}")


def main(command, *arguments):
    if command == "check":
        problems = check(*arguments)
        print("\n".join(problems), end="\n" if problems else "")
        sys.exit(bool(problems))
    if command == "field":
        print(Package(arguments[0]).fields[arguments[1]])
        return
    {"install": install, "remove": remove}[command](*arguments)


main(*sys.argv[1:])
