#!/bin/sh
# One broker in KRaft mode, its own controller. Clients log in; broker and controller talk on loopback alone.
set -eu
login="org.apache.kafka.common.security.plain.PlainLoginModule required"
umask 077
cat > /tmp/server.properties <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=CLIENTS://0.0.0.0:9092,INSIDE://127.0.0.1:9094,CONTROLLER://127.0.0.1:9093
advertised.listeners=CLIENTS://${KAFKA_HOST:-kafka}:9092,INSIDE://127.0.0.1:9094
listener.security.protocol.map=CLIENTS:SASL_PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=INSIDE
sasl.enabled.mechanisms=PLAIN
listener.name.clients.plain.sasl.jaas.config=$login user_plumbline="$KAFKA_PASSWORD";
log.dirs=/data/kafka
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
P
unset KAFKA_PASSWORD
classes=${KAFKA_CLASSPATH:-/opt/kafka/libs/*}
[ -f /data/kafka/meta.properties ] || java -cp "$classes" kafka.tools.StorageTool format -t plumblineplumblineplQ -c /tmp/server.properties
exec java -Xmx512m -cp "$classes" kafka.Kafka /tmp/server.properties
