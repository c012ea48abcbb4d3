"""vLLM servers that a run starts, watches and ends. `serving` gives a stage the servers it needs; `wanted` says which
those are and where they run; `server` is one of them; `keeper` is the program between this process and a server.
"""
