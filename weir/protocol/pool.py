"""The descriptor pool of Weir's messages.

Other clients of the protocol register messages of the same names in protobuf's default pool. A
second registration of a name fails, so Weir's messages are not in the default pool.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
