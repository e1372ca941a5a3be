"""Webhooks: telling other systems what the log says, at least once, signed, and nowhere that must not be reached.

| module | job |
|---|---|
| `addresses`, `posting` | which addresses may be reached; one request to one of them |
| `signing`, `sealing` | Standard Webhooks signatures; keeping secrets |
| `bodies`, `mail` | what is said: generic, Slack, PagerDuty; e-mail |
| `attempting`, `deliverer` | one attempt and what follows from it; the cursors on the log |
| `subscribing` | what administrators do with subscriptions |
| `slack_actions`, `slack_route` | buttons that were pressed in Slack; where Slack sends them |
"""
