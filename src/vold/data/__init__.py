"""Problems: task sources that a recipe names (`sources/`), worlds made by rules (`worlds/`), published training sets,
and the benchmarks of the literature (`benchmarks/`), each one file.
`files/` reads rows and pictures from any container, or from the hub.
"""
