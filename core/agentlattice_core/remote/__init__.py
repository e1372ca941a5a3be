"""The client's other end of the wire: what it sends to a service, and what it reads from it.

| module | what it holds |
|---|---|
| `requests` | what each method sends, and what it makes of the answer |
| `answers` | JSON as results and errors |
| `service` | one key holder's view of a service: asking, waiting, giving back |
| `connections` | the pooled connections to one address, retries, and what is sent without waiting |
| `events` | following notifications |
"""
