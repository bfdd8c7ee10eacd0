#!/bin/sh
# Runs one KRaft broker in a container: writes its configuration, formats its data folder once, and
# becomes the broker, so that SIGTERM reaches it.
#
#   KAFKA_JARS     folder of the jars             KAFKA_DATA   folder of its data, kept in a volume
#   KAFKA_HOST     name under which clients and the broker itself reach it
#   KAFKA_PORT     port for clients               KAFKA_CONTROLLER_PORT   port of its controller
#   KAFKA_HEAP     heap, such as 512m             KAFKA_CLUSTER_ID        22 characters of base64
set -eu

here=$(dirname "$0")
jars=${KAFKA_JARS:-/opt/kafka/jars}
data=${KAFKA_DATA:-/var/lib/kafka}
host=${KAFKA_HOST:-kafka}
port=${KAFKA_PORT:-9092}
controller=${KAFKA_CONTROLLER_PORT:-9093}
config=$data/server.properties

mkdir -p "$data"
{
    cat "$here/server.properties"
    echo "controller.quorum.voters=1@$host:$controller"
    echo "listeners=CLIENT://:$port,CONTROLLER://:$controller"
    echo "advertised.listeners=CLIENT://$host:$port"
    echo "log.dirs=$data/log"
} >"$config"

if [ ! -f "$data/log/meta.properties" ]; then
    java -cp "$jars/*" -Xmx128m kafka.tools.StorageTool format \
        "--cluster-id=${KAFKA_CLUSTER_ID:-c3Bpa2Utcm91dGVyLTAwMQ}" --config "$config"
fi
exec java "-Xmx${KAFKA_HEAP:-512m}" -XX:+UseSerialGC -XX:-UsePerfData \
    "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$jars/*" kafka.Kafka "$config"
