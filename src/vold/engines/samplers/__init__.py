"""Samplers: in this process, on servers, and of several turns with a tool. `student` opens the one that follows the
student's weights.
"""
