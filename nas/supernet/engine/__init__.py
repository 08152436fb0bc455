"""The fast engine: a node of the supernet in few, large calls, equal to `nas.supernet.node` to rounding.

Read in this order: `fast_node`, the node; `batched_modules`, an operation of many edges as one; `pass_context`, the
context in which such an operation computes. The others are tools: `memory_format`, `convolutions`, `alpha_cache`,
`stacked_tensors`.
"""
