"""A stand-in for the hub's HTTP API, as far as small files go: create, commit, list and resolve, in memory."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories by id, each a mapping from file names to bytes; `tokens` may write."""

    def __init__(self, token):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories, self.token, self.private = {}, token, {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments):
        pass

    def _send(self, content=b"", status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status, code):
        self._send({"error": code}, status, X_Error_Code=code)

    def _commit(self, repository):
        return hashlib.sha1(repr(sorted(self.server.repositories[repository].items())).encode()).hexdigest()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path.strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._refuse(401, "Unauthorized")
        if path == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in self.server.repositories:
                return self._send({"error": "exists", "url": f"{self.server.endpoint}/{name}"}, 409)
            self.server.repositories[name] = {}
            self.server.private[name] = asked.get("private")
            return self._send({"url": f"{self.server.endpoint}/{name}", "name": name})
        if path == ["api", "validate-yaml"]:
            return self._send({"errors": [], "warnings": []})
        repository, action = "/".join(path[2:4]), path[4]
        if action == "preupload":
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self._send({"files": files})
        if action == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[repository][line["value"]["path"]] = content
            oid = self._commit(repository)
            url = f"{self.server.endpoint}/{repository}/commit/{oid}"
            return self._send({"success": True, "commitOid": oid, "commitUrl": url})
        return self._refuse(404, "RepoNotFound")

    def do_GET(self):
        path = urlsplit(self.path).path.strip("/").split("/")
        if path[0] == "api":
            repository = "/".join(path[2:4])
            files = self.server.repositories.get(repository)
            if files is None:
                return self._refuse(404, "RepoNotFound")
            if len(path) > 4 and path[4] == "tree":
                entries = [{"type": "file", "path": name, "size": len(files[name]), "oid": "0"} for name in files]
                return self._send(entries)
            siblings = [{"rfilename": name} for name in files]
            return self._send(
                {"id": repository, "sha": self._commit(repository), "siblings": siblings, "private": False, "tags": []}
            )
        repository, name = "/".join(path[:2]), "/".join(path[4:])
        files = self.server.repositories.get(repository)
        if files is None:
            return self._refuse(404, "RepoNotFound")
        if name not in files:
            return self._refuse(404, "EntryNotFound")
        tag = hashlib.sha256(files[name]).hexdigest()
        return self._send(files[name], ETag=f'"{tag}"', X_Repo_Commit=self._commit(repository), Accept_Ranges="none")

    do_HEAD = do_GET
