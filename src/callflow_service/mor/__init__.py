"""MOR's call as its clients know it: parameters in, XML pages out. This contract is frozen."""
