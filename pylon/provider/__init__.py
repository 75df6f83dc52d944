"""Provider mode: a stranger's job comes in over the relays, is priced, paid, run and answered.

The way of a job, one file a step: intake (with admission and pricing), payments, worker, answer;
`announce` tells the market what is on offer. The stages are in `pylon.states`.
"""
