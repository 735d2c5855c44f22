import http.server
import threading
import urllib.error
import urllib.request

import pytest

from baltoro.jobs.verify.outage import door_to


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = b"x" * 200_000
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def fetch(endpoint):
    with urllib.request.urlopen(endpoint, timeout=5) as answer:
        return len(answer.read())


def test_a_door_passes_whole_answers_until_it_is_shut_and_again_after(server):
    with door_to(server) as door:
        assert fetch(door.endpoint) == 200_000
        door.shut()
        with pytest.raises(urllib.error.URLError, match="refused"):
            fetch(door.endpoint)
        assert fetch(server) == 200_000
        door.open()
        assert fetch(door.endpoint) == 200_000


def test_a_connection_that_stands_is_cut(server):
    import http.client

    with door_to(server) as door:
        connection = http.client.HTTPConnection(door.endpoint.removeprefix("http://"), timeout=5)
        connection.request("GET", "/")
        assert len(connection.getresponse().read()) == 200_000
        door.shut()

        def ask_again():
            connection.request("GET", "/")
            return connection.getresponse().read()

        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask_again()
