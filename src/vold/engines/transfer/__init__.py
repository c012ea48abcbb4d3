"""How a rollout server gets the student's weights: what has changed, over one of several ways, checked by the server.
`weights` decides what is sent and when it is in place, `ways` carry it, `receiver` and `vllm_worker` run in the server.
"""
