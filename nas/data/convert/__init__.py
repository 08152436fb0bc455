"""What annotation tools write, brought into the layout of the data set `folder`: `nas-data convert`."""
