"""A tiny OpenAI-compatible server: `python openai_server.py PORT` answers each question with 3, or with option A.

The requests are printed, a JSON object a line, with the key that came with each.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers after a thought."""

    def log_message(self, *arguments):
        """Print nothing."""

    def do_GET(self):
        self._say({"data": [{"id": "student"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        # One write a line: requests are answered by threads.
        sys.stdout.write(json.dumps({"key": self.headers["authorization"], **body}) + "\n")
        sys.stdout.flush()
        question = json.dumps(body["messages"])
        text = "ANSWER: A" if "colour" in question else "The answer is 3"
        message = {"role": "assistant", "content": f"<think>\nLet me see.\n</think>\n\n{text}"}
        self._say(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
            }
        )

    def _say(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
