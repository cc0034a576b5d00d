"""A stand-in for the Hugging Face Hub on loopback: a dataset or model, and enough of the API to upload and read it."""

import base64
import hashlib
import json
import re
import time
import urllib.parse

from tests.http_servers import QuietHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(QuietHandler):
    """Objects by their SHA-256 in `server.folder`, and the files of the repository: names with objects.

    `server.puts` lists uploads, each of which takes `server.delay_s`.
    """

    protocol_version = "HTTP/1.1"

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        for pattern, answer in ROUTES.items():
            if match := re.fullmatch(pattern, path):
                return answer(self, body, *match.groups())
        return self.answer({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    do_GET = do_HEAD = do_PUT = do_POST = handle_request

    def answer(self, value, status=200, headers=()):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, header in {"Content-Length": len(data), "X-Repo-Commit": COMMIT, **dict(headers)}.items():
            self.send_header(name, str(header))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def object(self, digest):
        return self.server.folder / digest

    def files(self):
        listing = self.server.folder / "files.json"
        return json.loads(listing.read_text()) if listing.exists() else {}

    def created(self, body):
        repo = json.loads(body)
        kind = "datasets/" if repo.get("type") == "dataset" else ""
        self.answer({"url": f"{self.server.url}/{kind}{repo['organization']}/{repo['name']}"})

    def modes(self, body, *_):
        files = [{"path": file["path"], "shouldIgnore": False} for file in json.loads(body)["files"]]
        for file in files:
            file["uploadMode"] = "lfs" if file["path"].endswith((".parquet", ".safetensors")) else "regular"
        self.answer({"files": files})

    def batch(self, body):
        objects = []
        for file in json.loads(body)["objects"]:
            action = {"upload": {"href": f"{self.server.url}/objects/{file['oid']}"}}
            objects.append(file | ({} if self.object(file["oid"]).exists() else {"actions": action}))
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, body, digest):
        assert hashlib.sha256(body).hexdigest() == digest
        time.sleep(self.server.delay_s)
        self.server.puts.append(digest)
        self.object(digest).write_bytes(body)
        self.answer({})

    def commit(self, body, repo):
        files = self.files()
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                data = base64.b64decode(value["content"])
                files[value["path"]] = hashlib.sha256(data).hexdigest()
                self.object(files[value["path"]]).write_bytes(data)
            elif line["key"] == "lfsFile":
                assert self.object(value["oid"]).exists()
                files[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        (self.server.folder / "files.json").write_text(json.dumps(files))
        self.answer({"commitUrl": f"{self.server.url}/datasets/{repo}/commit/{COMMIT}", "commitOid": COMMIT})

    def entries(self, body, _, folder=""):
        files = {name: digest for name, digest in self.files().items() if not folder or name.startswith(f"{folder}/")}
        if self.command == "POST":  # paths-info
            wanted = urllib.parse.parse_qs(body.decode())["paths"] if body[:1] != b"{" else json.loads(body)["paths"]
            files = {name: digest for name, digest in files.items() if name in wanted}
        entries = []
        for name, digest in files.items():
            blob = {"oid": digest, "size": self.object(digest).stat().st_size}
            entries.append({"type": "file", "path": name, "lfs": blob | {"pointerSize": 130}} | blob)
        folders = {name.split("/")[0] for name in files if "/" in name} if not folder else ()
        self.answer([*entries, *({"type": "directory", "path": name, "oid": "0" * 40} for name in folders)])

    def info(self, _, repo, *__):
        siblings = [{"rfilename": name} for name in self.files()]
        self.answer({"_id": "1", "id": repo, "sha": COMMIT, "siblings": siblings, "private": True, "tags": []})

    def resolve(self, _, name):
        if refusal := getattr(self.server, "refusal", ""):
            return self.answer({"error": "refused"}, 403, {"X-Error-Code": refusal})
        if name not in self.files():
            return self.answer({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        digest = self.files()[name]
        data, headers = self.object(digest).read_bytes(), {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            return self.answer(data[start : end + 1], 206, headers)
        return self.answer(data, 200, headers)


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    "/api/repos/create": Hub.created,
    "/api/validate-yaml": lambda hub, _: hub.answer({"errors": [], "warnings": []}),
    f"/api/(?:datasets|models)/{REPO}/preupload/main": Hub.modes,
    f"/(?:datasets/)?{REPO[1:-1]}.git/info/lfs/objects/batch": Hub.batch,
    "/objects/([0-9a-f]{64})": Hub.put,
    f"/api/(?:datasets|models)/{REPO}/commit/main": Hub.commit,
    f"/api/(?:datasets|models)/{REPO}/(?:tree|paths-info)/[^/]+(?:/(.*))?": lambda hub, body, repo, folder: hub.entries(
        body, repo, folder or ""
    ),
    f"/api/(?:datasets|models)/{REPO}(?:/revision/.*)?": Hub.info,
    f"/(?:datasets/)?{REPO[1:-1]}/resolve/[^/]+/(.*)": Hub.resolve,
}
