"""A real OpenStack behind the driver's port: Keystone, Nova, Placement, Cinder and Ironic through openstacksdk."""
