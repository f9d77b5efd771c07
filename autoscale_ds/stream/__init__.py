"""Which sample comes at which step, and how the weights are replaced while a run is going.

From a proposal to a sample:

1. ``proposals``: a program writes ``RUN/mixture/inbox/NAME.json`` with weights by domain name.
2. ``training.hot_swap``: after each step, rank 0 tells the other ranks whether a proposal waits or a controller is due.
3. If so, rank 0 reads the proposal and checks domains, sum and version. A bad one goes to ``RUN/mixture/rejected``.
4. ``journal``: rank 0 appends an ``Event``; its effective step is the first step that no rank has planned.
5. Rank 0 broadcasts the event; each rank adds it to its ``planner.MixturePlanner``.
6. When the planner comes to the effective step, it turns the weights into samples per domain (the quota).
7. ``counts``: earliest deadline gives each domain a whole number of samples; running counts stay near their targets.
8. ``permutation``: a keyed shuffle puts them into the slots of the global batch; each rank takes its slice.
9. Sample n of a domain is a window of its text, by a keyed permutation of all its windows for each epoch (of a keyed
   share of them, where a run is told to repeat as a larger run would).
10. ``dataset``: a reader fetches the windows of the plan from the corpus as tensors; it never sees weights.
"""
