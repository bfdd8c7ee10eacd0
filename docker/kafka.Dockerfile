# Apache Kafka from its own jars, as `spikerouter kafka start` runs it: docker/kafka/pom.xml says which.
FROM maven:3.9.9-eclipse-temurin-17 AS jars
WORKDIR /src
COPY docker/kafka/pom.xml pom.xml
RUN mvn --batch-mode --quiet dependency:copy-dependencies -DoutputDirectory=/opt/kafka/jars

FROM eclipse-temurin:17.0.13_11-jre-jammy
RUN useradd --system --uid 10001 --no-create-home kafka \
    && install --directory --owner kafka /var/lib/kafka
COPY --from=jars /opt/kafka/jars /opt/kafka/jars
COPY docker/kafka/run.sh docker/kafka/server.properties docker/kafka/log4j2.properties /opt/kafka/
USER 10001
VOLUME /var/lib/kafka
EXPOSE 9092
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/kafka/run.sh"]
